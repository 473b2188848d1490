"""The shared AWS module: the only importer of boto3. It knows neither Slack nor handlers; any front end may use it.

Importing it, or any module of it, imports no SDK: boto3 costs a quarter of a second and waits for the first call.
"""
