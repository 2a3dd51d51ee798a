from support.server_fixtures import clean_environment

__all__ = ["clean_environment"]
