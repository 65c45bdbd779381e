//! Adapters to AWS: the fleet (EC2), the state store (DynamoDB), notifications (SNS), metrics (CloudWatch).
