"""The shared set-up to try out on one machine: MLflow on PostgreSQL and S3, and an S3 remote for
DVC (docs/team.md).
"""
