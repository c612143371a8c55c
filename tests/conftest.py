"""What holds for every test: no example of hypothesis is judged by the time it takes, on however busy a machine."""

from hypothesis import HealthCheck, settings

settings.register_profile("awsha", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("awsha")
