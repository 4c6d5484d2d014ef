"""The service's web application: API, pages, who may see what."""
