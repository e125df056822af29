"""What DAG code cannot switch off from a DAG file: cluster policy, sealed secrets, governed answers."""
