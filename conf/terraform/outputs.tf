output "vip" {
  description = "The address of the service"
  value       = var.vip
}

output "node_a" {
  description = "Instance of node a"
  value       = aws_instance.a.id
}

output "node_b" {
  description = "Instance of node b"
  value       = aws_instance.b.id
}

output "address_a" {
  description = "Primary private address of node a"
  value       = aws_network_interface.a.private_ip
}

output "address_b" {
  description = "Primary private address of node b"
  value       = aws_network_interface.b.private_ip
}

output "public_address_a" {
  description = "Public address of node a, for administration; null in a network that was given"
  value       = local.new_network ? aws_eip.a[0].public_ip : null
}

output "public_address_b" {
  description = "Public address of node b, for administration; null in a network that was given"
  value       = local.new_network ? aws_eip.b[0].public_ip : null
}

output "volume" {
  description = "The data volume. Terraform refuses to delete it"
  value       = aws_ebs_volume.data.id
}

output "security_group" {
  description = "Security group of the nodes"
  value       = aws_security_group.nodes.id
}

output "role" {
  description = "Role of the nodes"
  value       = aws_iam_role.nodes.name
}

output "pair" {
  description = "The tag awsha:pair of nodes and volume"
  value       = local.pair
}

output "watch_topic" {
  description = "The topic of the watcher's messages; null without watch"
  value       = var.watch ? aws_sns_topic.watcher[0].arn : null
}
