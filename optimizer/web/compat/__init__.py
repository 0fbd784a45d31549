"""Other services' APIs, as their SDKs speak them: each in its own module, with its own form of errors."""
