CREATE TABLE teams (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE employees (id INTEGER PRIMARY KEY, name TEXT, team_id INTEGER REFERENCES teams, salary INTEGER);
INSERT INTO teams VALUES (1, 'Boats', 'Ostwick'), (2, 'Lamps', 'Tern Bank');
INSERT INTO employees VALUES (1, 'Ada', 1, 4200), (2, 'Bo', 1, 3900), (3, 'Cleo', 2, 5100), (4, 'Dag', 2, 4800);
