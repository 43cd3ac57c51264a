// The C library's threads can hand canvases to each other, for which WebGL comes along, and its printf could write to files.
// Nobody here draws or prints.
mergeInto(LibraryManager.library, {
  emscripten_webgl_create_context__deps: [],
  emscripten_webgl_create_context: function() { return 0; },
  emscripten_set_canvas_element_size__deps: [],
  emscripten_set_canvas_element_size: function() { return -1; },
  fd_close__deps: [],
  fd_close: function() { return 52; },
  fd_seek__deps: [],
  fd_seek: function() { return 52; },
  fd_write__deps: [],
  fd_write: function() { return 52; },
});
