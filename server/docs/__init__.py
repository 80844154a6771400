"""Documents made from the code: the route table, OpenAPI, the table of fields."""
