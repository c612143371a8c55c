"""What `awsha check` can find: one code for each kind of defect, with why it matters and what to do.

`docs/check.md` is this catalogue; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from awsha.core.codes import Code, Severity

__all__ = ["CATALOGUE", "Code", "Entry", "Severity", "reference"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of defect: what it is in general, why it matters, what to do unless a finding knows better."""

    severity: Severity
    title: str
    why: str
    hint: str


_ERROR, _WARNING, _UNKNOWN = Severity.ERROR, Severity.WARNING, Severity.UNKNOWN

CATALOGUE: dict[Code, Entry] = {
    Code.CONFIG: Entry(
        _ERROR,
        "awsha.toml has a mistake",
        "nothing of awsha runs with it",
        "awsha config show names each one; docs/reference.md",
    ),
    Code.NOT_A_NODE: Entry(
        _ERROR,
        "this host is none of the nodes of awsha.toml, or lacks an interface that it names",
        "a node knows itself by its primary private address",
        "run it on a node, or correct address and interface in awsha.toml",
    ),
    Code.REGION: Entry(
        _ERROR,
        "the region is not known, or is not the one that this instance is in",
        "EC2 is asked in the wrong region: nothing of this pair exists there",
        "correct region in awsha.toml (or AWS_REGION), or leave it out: metadata knows it",
    ),
    Code.NO_ANSWER: Entry(
        _UNKNOWN,
        "a question had no answer",
        "what was not read was not checked, and the agent may need the same answer during a failover",
        "run `awsha check` again; when it stays, look at the reason",
    ),
    Code.METADATA: Entry(
        _ERROR,
        "instance metadata (version 2) does not answer",
        "the agent takes its credentials, its instance id and the confirmation of a moved address from there",
        "aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled",
    ),
    Code.METADATA_OFF: Entry(
        _ERROR,
        "EC2 has instance metadata switched off for a node",
        "that node has no credentials by its role and cannot confirm a moved address",
        "aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled",
    ),
    Code.METADATA_HOP_LIMIT: Entry(
        _ERROR,
        "instance metadata times out, and its hop limit is 1",
        "inside a container the answer has one hop more and is dropped",
        "aws ec2 modify-instance-metadata-options --instance-id ID --http-put-response-hop-limit 2",
    ),
    Code.CLOCK: Entry(
        _ERROR,
        "this host's clock differs from EC2's",
        "the `awsha:releasing` tag is told fresh from stale by the clock, and EC2 refuses requests that are 5 min off",
        "chronyc tracking; systemctl enable --now chronyd (Amazon Time Sync needs no route to the internet)",
    ),
    Code.PERMISSION: Entry(
        _ERROR,
        "the role of this node may not do something that a failover (or this check) needs",
        "the failover would stop at this call",
        "attach what `awsha iam-policy` prints to the role of the nodes",
    ),
    Code.INSTANCE_UNKNOWN: Entry(
        _ERROR,
        "no single instance of the region is this node",
        "its volume can't be taken from it, nor can it be fenced",
        "compare address and instance_id of the node in awsha.toml with `aws ec2 describe-instances`",
    ),
    Code.INSTANCE_MISMATCH: Entry(
        _ERROR,
        "an instance_id of awsha.toml belongs to an instance with another address",
        "fencing would stop the wrong instance",
        "correct instance_id in awsha.toml, or leave it out: it is found by the address",
    ),
    Code.INSTANCE_STATE: Entry(
        _WARNING,
        "a node's instance is not running",
        "there is nobody to fail over to",
        "aws ec2 start-instances --instance-ids ID",
    ),
    Code.ZONE: Entry(
        _ERROR,
        "nodes and volumes are in different availability zones",
        "an EBS volume can be attached in its own zone only",
        "put all of them into one zone (a snapshot moves a volume)",
    ),
    Code.SUBNET: Entry(
        _ERROR,
        "the nodes are in different subnets",
        "a private address moves within its subnet only",
        "put all nodes into one subnet",
    ),
    Code.VIP_SUBNET: Entry(
        _ERROR,
        "a VIP is outside of the nodes' subnet, or reserved in it",
        "EC2 refuses to assign it",
        "choose a free address of the subnet; its first four and its last are EC2's own",
    ),
    Code.VIP_PRIMARY: Entry(
        _ERROR,
        "a VIP is the primary address of a network interface",
        "EC2 never moves a primary address",
        "choose another VIP: a free address of the subnet",
    ),
    Code.VIP_STRANGER: Entry(
        _ERROR,
        "a VIP is on a network interface that is no node's",
        "the next takeover would take it away from there",
        "give it back there (aws ec2 unassign-private-ip-addresses), or choose another VIP",
    ),
    Code.ADDRESS_QUOTA: Entry(
        _ERROR,
        "a node's network interface has no room for all VIPs",
        "EC2 refuses the assign with PrivateIpAddressLimitExceeded",
        "take other secondary addresses off that interface, or use a larger instance type",
    ),
    Code.VRRP_BLOCKED: Entry(
        _ERROR,
        "the security groups do not let VRRP (IP protocol 112) pass from one node to another",
        "both nodes believe that they are alone, and both want to be master",
        "allow protocol 112 in and out between the nodes: aws ec2 authorize-security-group-ingress --group-id SG "
        "--ip-permissions IpProtocol=112,UserIdGroupPairs=[{GroupId=SG}]",
    ),
    Code.ICMP_BLOCKED: Entry(
        _WARNING,
        "the security groups do not let ICMP pass from one node to another",
        "path MTU discovery and every ping of a person who looks for a fault fail",
        "allow ICMP in and out between the nodes: aws ec2 authorize-security-group-ingress --group-id SG "
        "--ip-permissions IpProtocol=icmp,FromPort=-1,ToPort=-1,UserIdGroupPairs=[{GroupId=SG}]",
    ),
    Code.VOLUME_UNKNOWN: Entry(
        _ERROR,
        "a volume of awsha.toml does not exist in the region, or its tags mean none or several",
        "the group never becomes master",
        "compare id or tags in awsha.toml with `aws ec2 describe-volumes`",
    ),
    Code.VOLUME_ARN: Entry(
        _ERROR,
        "a volume is named by the ARN of another partition, region or account than this instance is in",
        "only the id in it is used: another volume was meant than the one with this id here, if there is one",
        "write the ARN, or the id, that `aws ec2 describe-volumes` shows on a node",
    ),
    Code.VOLUME_STATE: Entry(
        _ERROR, "a volume is neither available nor in use", "it cannot be attached", "aws ec2 describe-volumes"
    ),
    Code.VOLUME_STRANGER: Entry(
        _ERROR,
        "a volume is attached to an instance that is no node",
        "awsha takes a volume from its peers only: the takeover is blocked",
        "detach it there (aws ec2 detach-volume), or correct the ids in awsha.toml",
    ),
    Code.VOLUME_TYPE: Entry(
        _WARNING,
        "a volume is of a slow type (magnetic or throughput-optimised disks)",
        "the file system check of a takeover by force takes minutes",
        "aws ec2 modify-volume --volume-type gp3",
    ),
    Code.MULTI_ATTACH: Entry(
        _ERROR,
        "Multi-Attach is on for a volume",
        "the attachment is the lock: with Multi-Attach two nodes can mount one file system",
        "aws ec2 modify-volume --no-multi-attach-enabled --volume-id VOLUME (while it is detached)",
    ),
    Code.VOLUME_KEY: Entry(
        _ERROR,
        "the KMS key of an encrypted volume is not enabled",
        "a volume whose key cannot be used cannot be attached any more",
        "aws kms describe-key; aws kms enable-key, or aws kms cancel-key-deletion",
    ),
    Code.DELETE_ON_TERMINATION: Entry(
        _ERROR,
        "a volume is deleted when the instance that holds it is terminated",
        "terminating a broken node destroys the data",
        "aws ec2 modify-instance-attribute --instance-id ID --block-device-mappings "
        '\'[{"DeviceName": "DEVICE", "Ebs": {"DeleteOnTermination": false}}]\'',
    ),
    Code.MOUNT_POINT: Entry(
        _ERROR,
        "a mount point cannot be one: it is no directory, or its parent does not exist",
        "the mount is refused; awsha makes the last directory by itself, but no parents",
        "mkdir -p the mount point",
    ),
    Code.MOUNT_POINT_TAKEN: Entry(
        _ERROR,
        "something else is mounted at a mount point",
        "the volume cannot be mounted there",
        "umount it there, or correct mount in awsha.toml",
    ),
    Code.MOUNT_POINT_NOT_EMPTY: Entry(
        _WARNING,
        "a mount point that has nothing mounted holds files",
        "something wrote there while the volume was elsewhere; the mount hides those files",
        "look at the files, and move them away",
    ),
    Code.FSTAB: Entry(
        _ERROR,
        "a mount point is in /etc/fstab without noauto, or with an option that mounts it all the same",
        "at boot systemd waits for a disk that the peer holds, or mounts it behind awsha's back",
        "take the line out of /etc/fstab, or let its options be noauto, without x-systemd.automount, "
        "x-systemd.wanted-by and x-systemd.required-by; systemctl daemon-reload",
    ),
    Code.FILE_SYSTEM: Entry(
        _ERROR,
        "a volume that is attached here carries another file system than awsha.toml says, or none, or one that this "
        "kernel does not know",
        "a takeover would not mount it",
        "compare fstype in awsha.toml with `blkid DEVICE`, or leave fstype out: it is read from the device",
    ),
    Code.MOUNT_OPTIONS: Entry(
        _ERROR,
        "the kernel does not take one of the mount options for this type of file system",
        "the mount of a takeover fails",
        "correct options in awsha.toml; mount(8), and the file system's own page, like ext4(5)",
    ),
    Code.TOOL_MISSING: Entry(
        _ERROR,
        "a program that a takeover runs is not installed",
        "checking or mounting the file system would fail",
        "install the package",
    ),
    Code.UNIT_MISSING: Entry(
        _ERROR,
        "the application's unit does not exist, is masked or broken, or exists only while it runs",
        "it cannot be started",
        "install, unmask or mend it",
    ),
    Code.UNIT_ENABLED: Entry(
        _ERROR,
        "the application's unit is enabled at boot, or one that starts it is (a socket, a timer, a path)",
        "systemd starts it on a node that does not hold the volume",
        "systemctl disable UNIT (awsha starts and stops it)",
    ),
    Code.UNIT_RUNTIME: Entry(
        _WARNING,
        "the application's unit is enabled or linked below /run, for this boot only",
        "until the next boot systemd may start it by itself; or after it the unit is not there any more",
        "find out who did that: systemctl disable --runtime UNIT",
    ),
    Code.PROGRAM_MISSING: Entry(
        _ERROR,
        "a start, stop or check program of the application can't be run",
        "the application cannot be started, stopped or watched",
        "install it on every node, or correct [group.application]",
    ),
    Code.CONFIG_UNSAFE: Entry(
        _ERROR,
        "awsha.toml, keepalived.conf, the run or the state directory, or a folder above, is not root's alone",
        "what stands there is done as root: the agent does not start with it, keepalived asks nobody",
        "chown root, and chmod go-w",
    ),
    Code.HOOK_UNSAFE: Entry(
        _ERROR,
        "a hook, or a folder above it, can be written to by others than root, or does not belong to root",
        "it would be run as root: it is refused, and with before-acquire and after-mount the acquisition fails",
        "chown root, and chmod go-w",
    ),
    Code.HOOK_IGNORED: Entry(
        _WARNING,
        "something below the hooks' folder is never run",
        "its name is no group's or no point's, or it is not executable: what it was meant to do is not done",
        "correct its name (docs/hooks.md), chmod +x it, or take it away",
    ),
    Code.NOTIFY: Entry(
        _WARNING,
        "nobody would be told of a failover, or by one way less, though [notify] asks for it",
        "the failover works; who should know of it does not",
        "see docs/notify.md; awsha check --notify sends a test",
    ),
    Code.NET_UTILS: Entry(
        _WARNING,
        "amazon-ec2-net-utils manages the interface of the VIPs",
        "every minute or so it adds and removes secondary addresses by itself (its issues 161 and 167)",
        "systemctl mask --now refresh-policy-routes@IFACE.timer policy-routes@IFACE.service",
    ),
    Code.VIP_IN_NETWORK_CONFIG: Entry(
        _ERROR,
        "a VIP is written in this host's network configuration (by cloud-init, netplan or by hand)",
        "the kernel has the VIP from boot on, whoever is master",
        "take it out there; for cloud-init: datasource: {Ec2: {apply_full_imds_network_config: false}} in "
        "/etc/cloud/cloud.cfg.d/",
    ),
    Code.KEEPALIVED_MISSING: Entry(
        _ERROR, "keepalived is not installed", "nobody decides who is master", "install keepalived (2.2 or newer)"
    ),
    Code.KEEPALIVED_VERSION: Entry(
        _ERROR,
        "keepalived is older than 2.2",
        "it does not know what the generated file needs: track_file, startup_script, vrrp_startup_delay",
        "install keepalived 2.2 or newer",
    ),
    Code.KEEPALIVED_CONFIG: Entry(
        _ERROR,
        "keepalived.conf is not what awsha would generate now",
        "keepalived and awsha decide by different configurations",
        "awsha keepalived --node NODE > /etc/keepalived/keepalived.conf; systemctl reload keepalived",
    ),
    Code.KEEPALIVED_REFUSES: Entry(
        _ERROR,
        "keepalived's own test refuses keepalived.conf",
        "keepalived does not start with it",
        "keepalived --config-test",
    ),
    Code.KEEPALIVED_DOWN: Entry(
        _ERROR, "keepalived does not run", "this node cannot become master", "systemctl enable --now keepalived"
    ),
    Code.SCRIPT_SECURITY: Entry(
        _ERROR,
        "keepalived would refuse to run awsha",
        "under enable_script_security it runs nothing that others than root could replace: no notify would arrive",
        "install awsha where only root can write, and set command in awsha.toml",
    ),
    Code.AGENT_DOWN: Entry(
        _ERROR,
        "the agent does not run on this node",
        "each notify starts a slow process of its own, nothing is watched between them, and the health file is stale",
        "systemctl enable --now awsha-agent",
    ),
    Code.AGENT_OUTDATED: Entry(
        _ERROR,
        "the agent runs with another awsha.toml, or another version, than is installed now",
        "what was changed does not count until it is restarted",
        "systemctl restart awsha-agent (it moves nothing)",
    ),
    Code.PEER_UNPUBLISHED: Entry(
        _UNKNOWN,
        "a peer has not published which awsha.toml it runs with",
        "whether both nodes agree is not known; its agent publishes it at its start, as the tag `awsha:config`",
        "start the agent there (systemctl enable --now awsha-agent); it needs ec2:CreateTags on its instance",
    ),
    Code.PEER_CONFIG: Entry(
        _ERROR,
        "a peer's agent runs with another awsha.toml",
        "the nodes disagree about what moves, where it goes, or who may fence whom",
        "copy the same file to every node; awsha keepalived --node NODE > keepalived.conf there; restart the agent",
    ),
    Code.PEER_VERSION: Entry(
        _WARNING,
        "a peer's agent is of another version",
        "two versions may wait for each other differently",
        "install the same version on every node, the standby first",
    ),
}


def reference() -> str:
    """The catalogue as Markdown, for docs/check.md."""
    parts = []
    for code, entry in CATALOGUE.items():
        parts.append(
            f"### `{code}`\n\n{entry.severity}: {entry.title}.\n\n- Why: {entry.why}.\n- What to do: {entry.hint}\n"
        )
    return "\n".join(parts)
