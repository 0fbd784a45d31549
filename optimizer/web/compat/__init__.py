"""Other services' APIs as their SDKs speak them; each answers in its own error form."""
