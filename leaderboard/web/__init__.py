"""The web application: routes, middleware, caching, API schema."""
