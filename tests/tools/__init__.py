"""What a developer runs: generators of what stands in the repository."""
