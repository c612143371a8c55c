# Gives the pair its own id, and refuses variables that do not fit together before anything is made.
resource "terraform_data" "pair" {
  lifecycle {
    precondition {
      condition     = (var.vpc_id == "") == (var.subnet_id == "")
      error_message = "vpc_id and subnet_id: give both, or none."
    }
    precondition {
      condition     = var.vpc_id == "" || (var.vip != "10.51.0.100" && var.address_a != "10.51.0.10" && var.address_b != "10.51.0.11")
      error_message = "Choose vip, address_a and address_b in your subnet."
    }
    precondition {
      condition     = var.vip != var.address_a && var.vip != var.address_b && (var.address_a == "" || var.address_a != var.address_b)
      error_message = "vip, address_a and address_b: three addresses, each another one."
    }
    # A subnet of yours is looked at by the first boot alone.
    precondition {
      condition     = var.vpc_id != "" || cidrhost("${var.vip}/${split("/", var.network_cidr)[1]}", 0) == cidrhost(var.network_cidr, 0)
      error_message = "vip: a free address of network_cidr."
    }
    precondition {
      condition     = var.vpc_id != "" || !contains([cidrhost(var.network_cidr, 0), cidrhost(var.network_cidr, 1), cidrhost(var.network_cidr, 2), cidrhost(var.network_cidr, 3), cidrhost(var.network_cidr, -1)], var.vip)
      error_message = "vip: a free address of network_cidr, but the first four and the last, which EC2 keeps for itself."
    }
  }
}

locals {
  # The tag awsha:pair: another pair of this name, after this one, finds its own volume.
  pair = "${var.name}-${split("-", terraform_data.pair.id)[0]}"
}
