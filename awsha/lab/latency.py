"""How long EC2 takes for each thing that it does behind its replies: (shortest, longest), in seconds."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]
NO_TIME: Range = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Latency:
    """One range for each delay; a value is drawn evenly from it, by the region's seed, each time it is needed.

    `attach` is until the API says `attached`, `attach_device` until the guest has the device: either may come first.
    `detach` and `detach_force` are until `available`; the device leaves the guest at 60 % of it.
    The three `assign_*` are the three truths about an address: API, instance metadata, data plane.
    The three `stop*` are: the guest shuts down by itself; SkipOsShutdown, or a dead guest with Force; a dead guest
    without Force. The guest is gone at 60 % of it, `stopped` follows at the end.
    `status_check` is until DescribeInstanceStatus shows a dead guest as impaired.
    The three `lag_*` are added to every change before Describe shows it. `backward` is the chance (0 to 1) that one
    read after a change shows the state before it once more. `busy_poll_s` is how often EC2 looks whether a busy guest
    has let go (a simulation may want it coarser).
    """

    attach: Range = NO_TIME
    attach_device: Range = NO_TIME
    detach: Range = NO_TIME
    detach_force: Range = NO_TIME
    assign_visible_api: Range = NO_TIME
    assign_visible_metadata: Range = NO_TIME
    assign_dataplane: Range = NO_TIME
    stop: Range = NO_TIME
    stop_skip_os: Range = NO_TIME
    stop_dead: Range = NO_TIME
    start: Range = NO_TIME
    status_check: Range = NO_TIME
    call: Range = NO_TIME
    lag_volumes: Range = NO_TIME
    lag_instances: Range = NO_TIME
    lag_interfaces: Range = NO_TIME
    backward: float = 0.0
    busy_poll_s: float = 0.1

    @staticmethod
    def none() -> Latency:
        """Everything at once: the order of events stays, only the waiting goes."""
        return Latency()

    @staticmethod
    def aws() -> Latency:
        """As users report it: attach and detach mostly 1-4 s (EBS CSI driver's threads), addresses within seconds."""
        return Latency(
            attach=(1.0, 4.0),
            attach_device=(0.7, 4.0),
            detach=(1.0, 4.0),
            detach_force=(1.0, 4.0),
            assign_visible_api=(0.1, 0.8),
            assign_visible_metadata=(0.5, 3.0),
            assign_dataplane=(0.3, 2.0),
            stop=(8.0, 20.0),
            stop_skip_os=(3.0, 8.0),
            stop_dead=(60.0, 120.0),
            start=(5.0, 12.0),
            status_check=(60.0, 120.0),
            call=(0.015, 0.06),
            lag_volumes=(0.0, 0.5),
            lag_instances=(0.0, 1.0),
            lag_interfaces=(0.0, 0.5),
            backward=0.05,
        )
