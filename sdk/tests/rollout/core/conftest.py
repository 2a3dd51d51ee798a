from support.server_fixtures import clean_environment, clients, trainer

__all__ = ["clean_environment", "clients", "trainer"]
