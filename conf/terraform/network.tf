# The network, unless one is given.

locals {
  new_network = var.vpc_id == ""
  vpc_id      = local.new_network ? aws_vpc.pair[0].id : var.vpc_id
  subnet_id   = local.new_network ? aws_subnet.nodes[0].id : var.subnet_id
  zone        = local.new_network ? aws_subnet.nodes[0].availability_zone : data.aws_subnet.given[0].availability_zone
}

data "aws_region" "current" {}

data "aws_availability_zones" "all" {
  state = "available"
  filter {
    name   = "zone-type"
    values = ["availability-zone"]
  }
}

data "aws_subnet" "given" {
  count = local.new_network ? 0 : 1
  id    = var.subnet_id
}

resource "aws_vpc" "pair" {
  count                = local.new_network ? 1 : 0
  cidr_block           = var.network_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

resource "aws_subnet" "nodes" {
  count             = local.new_network ? 1 : 0
  vpc_id            = aws_vpc.pair[0].id
  cidr_block        = var.network_cidr
  availability_zone = data.aws_availability_zones.all.names[0]
  tags              = { Name = var.name }
  lifecycle {
    ignore_changes = [availability_zone] # the first zone can be another one day
  }
}

resource "aws_internet_gateway" "pair" {
  count = local.new_network ? 1 : 0
  tags  = { Name = var.name }
}

resource "aws_internet_gateway_attachment" "pair" {
  count               = local.new_network ? 1 : 0
  vpc_id              = aws_vpc.pair[0].id
  internet_gateway_id = aws_internet_gateway.pair[0].id
}

resource "aws_route_table" "pair" {
  count  = local.new_network ? 1 : 0
  vpc_id = aws_vpc.pair[0].id
  tags   = { Name = var.name }
}

resource "aws_route" "default" {
  count                  = local.new_network ? 1 : 0
  route_table_id         = aws_route_table.pair[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.pair[0].id
  depends_on             = [aws_internet_gateway_attachment.pair]
}

resource "aws_route_table_association" "nodes" {
  count          = local.new_network ? 1 : 0
  subnet_id      = aws_subnet.nodes[0].id
  route_table_id = aws_route_table.pair[0].id
}

# The way to EC2's API and the package mirrors, where the module makes the network. Instances do not get a public
# address by themselves on an interface that was there before.
resource "aws_eip" "a" {
  count      = local.new_network ? 1 : 0
  domain     = "vpc"
  tags       = { Name = "${var.name}-a" }
  depends_on = [aws_internet_gateway_attachment.pair]
}

resource "aws_eip" "b" {
  count      = local.new_network ? 1 : 0
  domain     = "vpc"
  tags       = { Name = "${var.name}-b" }
  depends_on = [aws_internet_gateway_attachment.pair]
}

resource "aws_eip_association" "a" {
  count                = local.new_network ? 1 : 0
  allocation_id        = aws_eip.a[0].allocation_id
  network_interface_id = aws_network_interface.a.id
  private_ip_address   = aws_network_interface.a.private_ip
}

resource "aws_eip_association" "b" {
  count                = local.new_network ? 1 : 0
  allocation_id        = aws_eip.b[0].allocation_id
  network_interface_id = aws_network_interface.b.id
  private_ip_address   = aws_network_interface.b.private_ip
}
