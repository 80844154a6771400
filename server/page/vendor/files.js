// Made by tools/vendor_page.py: the libraries by name.

export const FILES = {
  "highlight.js": "highlight.8ab71eb09c51.js",
  "katex.css": "katex.8af26fb91c4f.css",
  "katex.js": "katex.fa140498b8cf.js",
  "markdown-it.js": "markdown-it.b06c85174d2b.js",
  "purify.js": "purify.5c64f2cdc554.js",
  "task-lists.js": "task-lists.4f3b23f41bb3.js",
  "texmath.js": "texmath.926e075a1745.js",
};
