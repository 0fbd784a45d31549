"""What the API takes and answers, as marshmallow schemas: the one source of validation and of the OpenAPI document."""
