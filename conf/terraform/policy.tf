# Written by `python -m tests.tools.copies`; for a running pair `awsha iam-policy --format terraform` does.
# What awsha needs, and nothing else; made by awsha iam-policy
data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "awsha" {
  statement {
    sid = "AwshaLook"
    actions = [
      "ec2:DescribeInstances",
      "ec2:DescribeNetworkInterfaces",
      "ec2:DescribeVolumes",
    ]
    resources = [
      "*",
    ]
    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = ["${data.aws_region.current.region}"]
    }
  }
  statement {
    sid = "AwshaCheck"
    actions = [
      "ec2:DescribeInstanceTypes",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSubnets",
    ]
    resources = [
      "*",
    ]
    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = ["${data.aws_region.current.region}"]
    }
  }
  statement {
    sid = "AwshaVolumes"
    actions = [
      "ec2:AttachVolume",
      "ec2:DetachVolume",
    ]
    resources = [
      "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:volume/${aws_ebs_volume.data.id}",
      "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:instance/${aws_instance.a.id}",
      "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:instance/${aws_instance.b.id}",
    ]
  }
  statement {
    sid = "AwshaTellRelease"
    actions = [
      "ec2:CreateTags",
      "ec2:DeleteTags",
    ]
    resources = [
      "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:volume/${aws_ebs_volume.data.id}",
    ]
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "aws:TagKeys"
      values   = ["awsha:releasing"]
    }
    condition {
      test     = "Null"
      variable = "aws:TagKeys"
      values   = ["false"]
    }
  }
  statement {
    sid = "AwshaTellNodes"
    actions = [
      "ec2:CreateTags",
    ]
    resources = [
      "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:instance/${aws_instance.a.id}",
      "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:instance/${aws_instance.b.id}",
    ]
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "aws:TagKeys"
      values   = ["awsha:config", "awsha:status"]
    }
    condition {
      test     = "Null"
      variable = "aws:TagKeys"
      values   = ["false"]
    }
  }
  statement {
    sid = "AwshaAddresses"
    actions = [
      "ec2:AssignPrivateIpAddresses",
      "ec2:UnassignPrivateIpAddresses",
    ]
    resources = [
      "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:network-interface/${aws_network_interface.a.id}",
      "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:network-interface/${aws_network_interface.b.id}",
    ]
  }
  dynamic "statement" {
    for_each = var.fence != "force-detach" ? [1] : []
    content {
      sid = "AwshaFence"
      actions = [
        "ec2:StopInstances",
      ]
      resources = [
        "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:instance/${aws_instance.a.id}",
        "arn:${data.aws_partition.current.partition}:ec2:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:instance/${aws_instance.b.id}",
      ]
    }
  }
  dynamic "statement" {
    for_each = var.kms_key_arn != "" ? [1] : []
    content {
      sid = "AwshaUseKeys"
      actions = [
        "kms:CreateGrant",
      ]
      resources = [
        "${var.kms_key_arn}",
      ]
      condition {
        test     = "Bool"
        variable = "kms:GrantIsForAWSResource"
        values   = ["true"]
      }
    }
  }
  dynamic "statement" {
    for_each = var.kms_key_arn != "" ? [1] : []
    content {
      sid = "AwshaSeeKeys"
      actions = [
        "kms:DescribeKey",
      ]
      resources = [
        "${var.kms_key_arn}",
      ]
    }
  }
}

resource "aws_iam_policy" "awsha" {
  name_prefix = "awsha-"
  description = "What awsha needs, and nothing else; made by awsha iam-policy"
  policy      = data.aws_iam_policy_document.awsha.json
}
