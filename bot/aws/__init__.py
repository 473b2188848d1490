"""The shared AWS module: the only importer of boto3. Any front end may use it as it is; it knows neither Slack nor handlers."""
