# The parameters of conf/cloudformation/awsha-pair.yaml, and `name` in the place of the stack's name.

variable "name" {
  type        = string
  description = "What everything is called; several pairs may have one name."
  default     = "pair"
  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,60}$", var.name))
    error_message = "name: letters, digits and -, a letter first, 61 at most."
  }
}

variable "awsha_package" {
  type        = string
  description = "What pip installs as awsha: the https URL of a wheel that the nodes can read, or a requirement such as awsha==0.1.0. There is no default: awsha is not on PyPI yet. docs/terraform.md says how to build a wheel."
  validation {
    condition     = can(regex("^(https://[A-Za-z0-9._~:/?#@!$&()*+,;=%-]+|awsha[A-Za-z0-9._~=<>!,-]{0,100})$", var.awsha_package))
    error_message = "awsha_package: the https URL of a wheel, or a pip requirement for awsha."
  }
}

variable "image_a" {
  type        = string
  description = "SSM parameter with the AMI of node a: Debian 12 or later, or Ubuntu 24.04 or later, for the architecture of instance_type. Read when the node is made: a later one replaces nothing."
  default     = "/aws/service/debian/release/12/latest/amd64"
}

variable "image_b" {
  type        = string
  description = "The same for node b."
  default     = "/aws/service/debian/release/12/latest/amd64"
}

variable "instance_type" {
  type        = string
  description = "A type on Nitro (its volumes are NVMe devices)."
  default     = "t3.small"
  validation {
    condition     = can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", var.instance_type))
    error_message = "instance_type: an instance type such as t3.small."
  }
}

variable "vpc_id" {
  type        = string
  description = "An existing VPC. Empty: a VPC with one public subnet is made."
  default     = ""
  validation {
    condition     = can(regex("^(vpc-([0-9a-f]{8}|[0-9a-f]{17}))?$", var.vpc_id))
    error_message = "vpc_id: the id of a VPC, or empty."
  }
}

variable "subnet_id" {
  type        = string
  description = "A subnet of that VPC, for both nodes. From it they must reach EC2's API, the package mirrors and awsha_package (through NAT, for instance)."
  default     = ""
  validation {
    condition     = can(regex("^(subnet-([0-9a-f]{8}|[0-9a-f]{17}))?$", var.subnet_id))
    error_message = "subnet_id: the id of a subnet, or empty."
  }
}

variable "network_cidr" {
  type        = string
  description = "The addresses of the VPC that is made, all in one subnet. Not used with vpc_id."
  default     = "10.51.0.0/24"
  validation {
    condition     = can(regex("^([0-9]{1,3}\\.){3}[0-9]{1,3}/(1[6-9]|2[0-8])$", var.network_cidr)) && can(cidrnetmask(var.network_cidr))
    error_message = "network_cidr: an IPv4 network from /16 to /28."
  }
}

variable "vip" {
  type        = string
  description = "The address that moves, a free one of the subnet."
  default     = "10.51.0.100"
  validation {
    condition     = can(regex("^([0-9]{1,3}\\.){3}[0-9]{1,3}$", var.vip)) && can(cidrnetmask("${var.vip}/32"))
    error_message = "vip: an IPv4 address."
  }
}

variable "address_a" {
  type        = string
  description = "Primary private address of node a. Empty: EC2 chooses one (it could choose vip, unless that is reserved)."
  default     = "10.51.0.10"
  validation {
    condition     = can(regex("^(([0-9]{1,3}\\.){3}[0-9]{1,3})?$", var.address_a)) && (var.address_a == "" || can(cidrnetmask("${var.address_a}/32")))
    error_message = "address_a: an IPv4 address, or empty."
  }
}

variable "address_b" {
  type        = string
  description = "The same for node b."
  default     = "10.51.0.11"
  validation {
    condition     = can(regex("^(([0-9]{1,3}\\.){3}[0-9]{1,3})?$", var.address_b)) && (var.address_b == "" || can(cidrnetmask("${var.address_b}/32")))
    error_message = "address_b: an IPv4 address, or empty."
  }
}

variable "router_id" {
  type        = number
  description = "VRRP router id, used by no other VRRP router of these nodes."
  default     = 51
  validation {
    condition     = var.router_id >= 1 && var.router_id <= 255 && floor(var.router_id) == var.router_id
    error_message = "router_id: an integer from 1 to 255."
  }
}

variable "service_port" {
  type        = number
  description = "The TCP port of the service, for client_cidr."
  default     = 5432
  validation {
    condition     = var.service_port >= 1 && var.service_port <= 65535 && floor(var.service_port) == var.service_port
    error_message = "service_port: an integer from 1 to 65535."
  }
}

variable "client_cidr" {
  type        = string
  description = "Who may reach service_port, as an IPv4 network. Empty: nobody but the nodes."
  default     = ""
  validation {
    condition     = can(regex("^(([0-9]{1,3}\\.){3}[0-9]{1,3}/[0-9]{1,2})?$", var.client_cidr)) && (var.client_cidr == "" || can(cidrnetmask(var.client_cidr)))
    error_message = "client_cidr: an IPv4 network, or empty."
  }
}

variable "admin_cidr" {
  type        = string
  description = "Who may reach SSH, as an IPv4 network. Empty: nobody."
  default     = ""
  validation {
    condition     = can(regex("^(([0-9]{1,3}\\.){3}[0-9]{1,3}/[0-9]{1,2})?$", var.admin_cidr)) && (var.admin_cidr == "" || can(cidrnetmask(var.admin_cidr)))
    error_message = "admin_cidr: an IPv4 network, or empty."
  }
}

variable "key_name" {
  type        = string
  description = "The name of an EC2 key pair for SSH. Empty: none."
  default     = ""
  validation {
    condition     = can(regex("^[ -~]{0,255}$", var.key_name))
    error_message = "key_name: the name of a key pair, or empty."
  }
}

variable "volume_size" {
  type        = number
  description = "Size of the data volume, GiB."
  default     = 20
  validation {
    condition     = var.volume_size >= 1 && var.volume_size <= 16384 && floor(var.volume_size) == var.volume_size
    error_message = "volume_size: an integer from 1 to 16384."
  }
}

variable "snapshot_id" {
  type        = string
  description = "A snapshot for the data volume. Empty: an empty volume, on which node a makes the file system."
  default     = ""
  validation {
    condition     = can(regex("^(snap-([0-9a-f]{8}|[0-9a-f]{17}))?$", var.snapshot_id))
    error_message = "snapshot_id: the id of a snapshot, or empty."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "The KMS key of the data volume. Empty: the account's key for EBS."
  default     = ""
  validation {
    condition     = can(regex("^(arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)?$", var.kms_key_arn))
    error_message = "kms_key_arn: the ARN of a KMS key, or empty."
  }
}

variable "file_system" {
  type        = string
  description = "The file system that node a makes on an empty volume."
  default     = "ext4"
  validation {
    condition     = contains(["ext4", "xfs"], var.file_system)
    error_message = "file_system: one of ext4, xfs."
  }
}

variable "mount_point" {
  type        = string
  description = "Where the master mounts the volume."
  default     = "/srv/data"
  validation {
    condition     = can(regex("^(/[A-Za-z0-9._-]+)+$", var.mount_point))
    error_message = "mount_point: an absolute path of letters, digits, `.`, `_` and `-`."
  }
}

variable "fence" {
  type        = string
  description = "What is done about a holder of the volume that stays silent."
  default     = "stop-instance"
  validation {
    condition     = contains(["stop-instance", "force-detach", "none"], var.fence)
    error_message = "fence: one of stop-instance, force-detach, none."
  }
}

variable "metadata_hop_limit" {
  type        = number
  description = "1: instance metadata for the host only; 2: for containers on it, too."
  default     = 1
  validation {
    condition     = var.metadata_hop_limit >= 1 && var.metadata_hop_limit <= 2 && floor(var.metadata_hop_limit) == var.metadata_hop_limit
    error_message = "metadata_hop_limit: an integer from 1 to 2."
  }
}

variable "watch" {
  type        = bool
  description = "Whether a Lambda function watches the pair and tells a topic when it is not together: docs/watcher.md."
  default     = false
}

variable "watch_email" {
  type        = string
  description = "Who gets the watcher's messages by mail, besides other subscribers of its topic. Empty: nobody."
  default     = ""
  validation {
    condition     = can(regex("^([^@ ]+@[^@ ]+)?$", var.watch_email))
    error_message = "watch_email: an address for mail, or empty."
  }
}
