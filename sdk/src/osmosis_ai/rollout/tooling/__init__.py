"""What helps around an agent: the doctor, and a new project."""
