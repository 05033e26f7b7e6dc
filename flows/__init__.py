"""The DAG, Ray job submission, gates, the report and the command line."""
