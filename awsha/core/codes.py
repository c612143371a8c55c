"""The kinds of findings of `awsha check`, and how bad one is. What each means: `awsha.core.catalogue`."""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """How bad it is. All three end `awsha check` with 1: what could not be read is not in order."""

    ERROR = "error"  # a failover fails, or harms data
    WARNING = "warning"  # a failover works, but something works against it
    UNKNOWN = "unknown"  # a question without an answer


class Code(StrEnum):
    """The kinds of findings, in the order in which they are shown."""

    CONFIG = "config"
    NOT_A_NODE = "not-a-node"
    REGION = "region"
    NO_ANSWER = "no-answer"
    METADATA = "metadata"
    METADATA_OFF = "metadata-off"
    METADATA_HOP_LIMIT = "metadata-hop-limit"
    CLOCK = "clock"
    PERMISSION = "permission"
    INSTANCE_UNKNOWN = "instance-unknown"
    INSTANCE_MISMATCH = "instance-mismatch"
    INSTANCE_STATE = "instance-state"
    ZONE = "zone"
    SUBNET = "subnet"
    VIP_SUBNET = "vip-subnet"
    VIP_PRIMARY = "vip-primary"
    VIP_STRANGER = "vip-stranger"
    ADDRESS_QUOTA = "address-quota"
    VRRP_BLOCKED = "vrrp-blocked"
    ICMP_BLOCKED = "icmp-blocked"
    VOLUME_UNKNOWN = "volume-unknown"
    VOLUME_ARN = "volume-arn"
    VOLUME_STATE = "volume-state"
    VOLUME_STRANGER = "volume-stranger"
    VOLUME_TYPE = "volume-type"
    MULTI_ATTACH = "multi-attach"
    VOLUME_KEY = "volume-key"
    DELETE_ON_TERMINATION = "delete-on-termination"
    MOUNT_POINT = "mount-point"
    MOUNT_POINT_TAKEN = "mount-point-taken"
    MOUNT_POINT_NOT_EMPTY = "mount-point-not-empty"
    FSTAB = "fstab"
    FILE_SYSTEM = "file-system"
    MOUNT_OPTIONS = "mount-options"
    TOOL_MISSING = "tool-missing"
    UNIT_MISSING = "unit-missing"
    UNIT_ENABLED = "unit-enabled"
    UNIT_RUNTIME = "unit-runtime"
    PROGRAM_MISSING = "program-missing"
    CONFIG_UNSAFE = "config-unsafe"
    HOOK_UNSAFE = "hook-unsafe"
    HOOK_IGNORED = "hook-ignored"
    NOTIFY = "notify"
    NET_UTILS = "net-utils"
    VIP_IN_NETWORK_CONFIG = "vip-in-network-config"
    KEEPALIVED_MISSING = "keepalived-missing"
    KEEPALIVED_VERSION = "keepalived-version"
    KEEPALIVED_CONFIG = "keepalived-config"
    KEEPALIVED_REFUSES = "keepalived-refuses"
    KEEPALIVED_DOWN = "keepalived-down"
    SCRIPT_SECURITY = "script-security"
    AGENT_DOWN = "agent-down"
    AGENT_OUTDATED = "agent-outdated"
    PEER_UNPUBLISHED = "peer-unpublished"
    PEER_CONFIG = "peer-config"
    PEER_VERSION = "peer-version"
