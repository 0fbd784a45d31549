// Shows the OpenAPI document. A file of its own, since the page's content security policy allows no inline script.
window.addEventListener("load", () => {
  const place = document.getElementById("api");
  window.SwaggerUIBundle({
    domNode: place,
    url: place.dataset.document,
    deepLinking: true,
    displayRequestDuration: true,
    persistAuthorization: false,
    validatorUrl: null, // the default asks a server on the internet
  });
});
