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
  }
}

locals {
  # The tag awsha:pair: another pair of this name, after this one, finds its own volume.
  pair = "${var.name}-${split("-", terraform_data.pair.id)[0]}"
}
