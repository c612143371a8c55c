# Who watches, if somebody shall: conf/lambda/watcher.py, docs/watcher.md.

resource "aws_sns_topic" "watcher" {
  count       = var.watch ? 1 : 0
  name_prefix = "${var.name}-watcher-"
  tags        = { Name = "${var.name}-watcher" }
}

resource "aws_sns_topic_subscription" "watcher" {
  count     = var.watch && var.watch_email != "" ? 1 : 0
  topic_arn = aws_sns_topic.watcher[0].arn
  protocol  = "email"
  endpoint  = var.watch_email
}

# What was told last: a message is sent at a change only. The value is the watcher's.
resource "aws_ssm_parameter" "watcher" {
  count       = var.watch ? 1 : 0
  name        = "${local.pair}-watcher"
  type        = "String"
  description = "What the watcher of an awsha pair has told last"
  value       = "{\"state\": \"\", \"moving_since\": null}"
  lifecycle {
    ignore_changes = [value]
  }
}

resource "aws_cloudwatch_log_group" "watcher" {
  count             = var.watch ? 1 : 0
  name_prefix       = "${var.name}-watcher-"
  retention_in_days = 30
}

resource "aws_iam_role" "watcher" {
  count       = var.watch ? 1 : 0
  name_prefix = "${substr(var.name, 0, 29)}-watcher-"
  description = "Watcher of an awsha pair"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "watcher" {
  count = var.watch ? 1 : 0
  name  = "watcher"
  role  = aws_iam_role.watcher[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Look"
        Effect    = "Allow"
        Action    = ["ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces", "ec2:DescribeVolumes"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = data.aws_region.current.region } }
      },
      {
        Sid       = "Measure"
        Effect    = "Allow"
        Action    = "cloudwatch:PutMetricData"
        Resource  = "*"
        Condition = { StringEquals = { "cloudwatch:namespace" = "awsha" } }
      },
      {
        Sid      = "Tell"
        Effect   = "Allow"
        Action   = "sns:Publish"
        Resource = aws_sns_topic.watcher[0].arn
      },
      {
        Sid      = "Remember"
        Effect   = "Allow"
        Action   = ["ssm:GetParameter", "ssm:PutParameter"]
        Resource = aws_ssm_parameter.watcher[0].arn
      },
      {
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.watcher[0].arn}:*"
      },
    ]
  })
}

data "archive_file" "watcher" {
  count       = var.watch ? 1 : 0
  type        = "zip"
  source_file = "${path.module}/../lambda/watcher.py"
  output_path = "${path.root}/.terraform/${var.name}-watcher.zip"
}

resource "aws_lambda_function" "watcher" {
  count            = var.watch ? 1 : 0
  function_name    = "${substr(var.name, 0, 47)}-${split("-", terraform_data.pair.id)[0]}-watcher" # 64 at most
  description      = "Says when address and volume of an awsha pair are apart"
  runtime          = "python3.13"
  handler          = "watcher.handler"
  timeout          = 120
  memory_size      = 256
  role             = aws_iam_role.watcher[0].arn
  filename         = data.archive_file.watcher[0].output_path
  source_code_hash = data.archive_file.watcher[0].output_base64sha256
  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.watcher[0].name
  }
  environment {
    variables = {
      PAIR      = local.pair
      VIPS      = var.vip
      TOPIC_ARN = aws_sns_topic.watcher[0].arn
      STATE     = aws_ssm_parameter.watcher[0].name
    }
  }
}

resource "aws_cloudwatch_event_rule" "watcher" {
  count               = var.watch ? 1 : 0
  name_prefix         = "${substr(var.name, 0, 29)}-watcher-"
  description         = "What may set an awsha pair apart, and every minute"
  schedule_expression = "rate(1 minute)"
  event_pattern = jsonencode({
    source = ["aws.ec2"]
    "$or" = [
      {
        "detail-type" = ["EC2 Instance State-change Notification"]
        detail        = { "instance-id" = [aws_instance.a.id, aws_instance.b.id] }
      },
      {
        "detail-type" = ["EBS Volume Notification"]
        resources     = [aws_ebs_volume.data.arn]
      },
    ]
  })
}

resource "aws_cloudwatch_event_target" "watcher" {
  count     = var.watch ? 1 : 0
  rule      = aws_cloudwatch_event_rule.watcher[0].name
  target_id = "watcher"
  arn       = aws_lambda_function.watcher[0].arn
}

resource "aws_lambda_permission" "watcher" {
  count         = var.watch ? 1 : 0
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.watcher[0].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.watcher[0].arn
}
