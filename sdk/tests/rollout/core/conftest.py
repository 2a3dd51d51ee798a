from support.server_fixtures import clean_environment, clients, shared_folder, trainer, working_folder

__all__ = ["clean_environment", "clients", "shared_folder", "trainer", "working_folder"]
