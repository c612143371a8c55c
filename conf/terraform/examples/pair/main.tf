# Two nodes in a network of their own, watched. `terraform init`, then `terraform apply -var awsha_package=URL`.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.10, < 7.0"
    }
  }
}

provider "aws" {
  region = "eu-west-1"
}

variable "awsha_package" {
  type        = string
  description = "The https URL of a wheel of awsha."
}

module "pair" {
  source        = "../.."
  name          = "db"
  awsha_package = var.awsha_package
  vip           = "10.51.0.100"
  address_a     = "10.51.0.10"
  address_b     = "10.51.0.11"
  mount_point   = "/srv/data"
  client_cidr   = "10.51.0.0/24"
  service_port  = 5432
  watch         = true
}

output "vip" {
  description = "The address of the service"
  value       = module.pair.vip
}

output "nodes" {
  description = "Instances and their public addresses"
  value = {
    a = { instance = module.pair.node_a, address = module.pair.public_address_a }
    b = { instance = module.pair.node_b, address = module.pair.public_address_b }
  }
}

output "volume" {
  description = "The data volume"
  value       = module.pair.volume
}
