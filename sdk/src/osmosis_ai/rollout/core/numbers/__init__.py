"""One number in a text, as people and models write it.

A text is one number, or none: what may also mean another number is none. Reading never raises, and takes linear time.

    18.00  $1,234.50 a day  8 000  -7  1/2  1 1/2  \\frac{1}{2}  1.2e3  1.2 \\times 10^3  **18** apples  x = 18
    18k, 18 thousand                         are 18,000, never 18
    2 + 16 = 18                              is what comes out, whether or not it does
    18 or 19, 18x, 18^2, 18 and a half       are none
    36/2, 18 dozen                           are none where the work must be done, else 18 and 216

Words may follow a number as its unit: those of a list, and plurals. Any other word makes it no number: a policy would
find the one that is read over and means another number.

``reading`` reads; ``notation`` is how a number is written, ``units`` what may follow it, ``refused`` what may not.
"""
