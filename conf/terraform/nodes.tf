# On different racks: one broken rack leaves the other node.
resource "aws_placement_group" "apart" {
  name     = local.pair
  strategy = "spread"
}

# Made before the nodes, so that both know both addresses at their first boot. A node that is replaced keeps its own.
# awsha moves the VIP between them: Terraform must not take it away again.
resource "aws_network_interface" "a" {
  description     = "Node a of an awsha pair"
  subnet_id       = local.subnet_id
  private_ips     = var.address_a != "" ? [var.address_a] : null
  security_groups = [aws_security_group.nodes.id]
  tags            = { Name = "${var.name}-a" }
  lifecycle {
    ignore_changes = [private_ips, private_ips_count, private_ip_list]
  }
}

resource "aws_network_interface" "b" {
  description     = "Node b of an awsha pair"
  subnet_id       = local.subnet_id
  private_ips     = var.address_b != "" ? [var.address_b] : null
  security_groups = [aws_security_group.nodes.id]
  tags            = { Name = "${var.name}-b" }
  lifecycle {
    ignore_changes = [private_ips, private_ips_count, private_ip_list]
  }
}

data "aws_ssm_parameter" "image_a" {
  name = var.image_a
}

data "aws_ssm_parameter" "image_b" {
  name = var.image_b
}

resource "aws_launch_template" "first_boot" {
  name_prefix = "${var.name}-"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = var.metadata_hop_limit
  }
  user_data = base64encode(local.first_boot)
}

locals {
  # The template's user data, made by `python -m tests.tools.copies`.
  first_boot = templatefile("${path.module}/first-boot.sh.tftpl", {
    region      = data.aws_region.current.region
    pair        = local.pair
    address_a   = aws_network_interface.a.private_ip
    address_b   = aws_network_interface.b.private_ip
    vip         = var.vip
    router_id   = var.router_id
    fence       = var.fence
    mount       = var.mount_point
    file_system = var.file_system
    snapshot    = var.snapshot_id
    size_gib    = var.volume_size
    package     = var.awsha_package
    ready       = "file:///dev/null" # nobody waits for it as CloudFormation does: docs/terraform.md says how to look
  })
}

# No apply stops or replaces a node by itself: it would take both at once. `terraform apply -replace=…` does, one
# at a time. `awsha:config` is the agent's.
resource "aws_instance" "a" {
  ami                  = data.aws_ssm_parameter.image_a.insecure_value
  instance_type        = var.instance_type
  key_name             = var.key_name != "" ? var.key_name : null
  iam_instance_profile = aws_iam_instance_profile.nodes.name
  placement_group      = aws_placement_group.apart.name
  primary_network_interface {
    network_interface_id = aws_network_interface.a.id
  }
  launch_template {
    id      = aws_launch_template.first_boot.id
    version = aws_launch_template.first_boot.latest_version
  }
  tags = {
    Name         = "${var.name}-a"
    "awsha:node" = "a"
    "awsha:pair" = local.pair
  }
  lifecycle {
    ignore_changes = [ami, instance_type, key_name, launch_template, placement_group, user_data, tags["awsha:config"], tags_all["awsha:config"], tags["awsha:status"], tags_all["awsha:status"]]
  }
}

resource "aws_instance" "b" {
  ami                  = data.aws_ssm_parameter.image_b.insecure_value
  instance_type        = var.instance_type
  key_name             = var.key_name != "" ? var.key_name : null
  iam_instance_profile = aws_iam_instance_profile.nodes.name
  placement_group      = aws_placement_group.apart.name
  primary_network_interface {
    network_interface_id = aws_network_interface.b.id
  }
  launch_template {
    id      = aws_launch_template.first_boot.id
    version = aws_launch_template.first_boot.latest_version
  }
  tags = {
    Name         = "${var.name}-b"
    "awsha:node" = "b"
    "awsha:pair" = local.pair
  }
  lifecycle {
    ignore_changes = [ami, instance_type, key_name, launch_template, placement_group, user_data, tags["awsha:config"], tags_all["awsha:config"], tags["awsha:status"], tags_all["awsha:status"]]
  }
}

# Attached by awsha, never by Terraform: the attachment is the lock. `awsha:releasing` is the agent's.
resource "aws_ebs_volume" "data" {
  availability_zone    = local.zone
  type                 = "gp3"
  size                 = var.volume_size
  snapshot_id          = var.snapshot_id != "" ? var.snapshot_id : null
  encrypted            = true
  kms_key_id           = var.kms_key_arn != "" ? var.kms_key_arn : null
  multi_attach_enabled = false
  tags = {
    Name         = "${var.name}-data"
    "awsha:pair" = local.pair
    "awsha:vip"  = var.vip
  }
  lifecycle {
    prevent_destroy = true
    ignore_changes  = [tags["awsha:releasing"], tags_all["awsha:releasing"]]
  }
}
