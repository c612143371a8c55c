# Who may talk to the nodes. A group without rules of its own: Terraform takes EC2's first egress rule away.

resource "aws_security_group" "nodes" {
  name_prefix = "${var.name}-"
  description = "Nodes of an awsha pair"
  vpc_id      = local.vpc_id
  tags        = { Name = var.name }
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.nodes.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "EC2's API, packages"
}

resource "aws_vpc_security_group_egress_rule" "http" {
  security_group_id = aws_security_group.nodes.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
  description       = "Package mirrors"
}

resource "aws_vpc_security_group_ingress_rule" "vrrp" {
  security_group_id            = aws_security_group.nodes.id
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "112"
  description                  = "VRRP from the other node"
}

resource "aws_vpc_security_group_egress_rule" "vrrp" {
  security_group_id            = aws_security_group.nodes.id
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "112"
  description                  = "VRRP to the other node"
}

resource "aws_vpc_security_group_ingress_rule" "icmp" {
  security_group_id            = aws_security_group.nodes.id
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "icmp"
  from_port                    = -1
  to_port                      = -1
  description                  = "ICMP from the other node"
}

resource "aws_vpc_security_group_egress_rule" "icmp" {
  security_group_id            = aws_security_group.nodes.id
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "icmp"
  from_port                    = -1
  to_port                      = -1
  description                  = "ICMP to the other node"
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  count             = var.client_cidr != "" ? 1 : 0
  security_group_id = aws_security_group.nodes.id
  cidr_ipv4         = var.client_cidr
  ip_protocol       = "tcp"
  from_port         = var.service_port
  to_port           = var.service_port
  description       = "The service"
}

resource "aws_vpc_security_group_ingress_rule" "admins" {
  count             = var.admin_cidr != "" ? 1 : 0
  security_group_id = aws_security_group.nodes.id
  cidr_ipv4         = var.admin_cidr
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  description       = "SSH"
}

# What the nodes may do is in policy.tf. It names the nodes, so it is made after them: their first boot waits for it.

resource "aws_iam_role" "nodes" {
  name_prefix = "${substr(var.name, 0, 31)}-nodes-"
  description = "Nodes of an awsha pair"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.${data.aws_partition.current.dns_suffix}" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_instance_profile" "nodes" {
  name_prefix = "${substr(var.name, 0, 31)}-nodes-"
  role        = aws_iam_role.nodes.name
}

resource "aws_iam_role_policy_attachment" "nodes" {
  role       = aws_iam_role.nodes.name
  policy_arn = aws_iam_policy.awsha.arn
}
