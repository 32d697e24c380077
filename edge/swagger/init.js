// Draws the page. A file of its own, because the page allows no script written into it.
SwaggerUIBundle({
  // Beside this file, whatever path a proxy puts in front of it.
  url: new URL("openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  // The default asks a service on the internet.
  validatorUrl: null,
});
