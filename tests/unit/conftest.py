"""How hypothesis works here: no case is judged by how long it took."""

from hypothesis import settings

settings.register_profile("callboard", deadline=None)
settings.load_profile("callboard")
