"""Settings of hypothesis: no deadline, because a busy machine is no fault of the code."""

from hypothesis import settings

settings.register_profile("bertloom", deadline=None)
settings.load_profile("bertloom")
