// The C library's threads can hand canvases to each other, for which 6 KB of WebGL come along. Nobody here draws.
mergeInto(LibraryManager.library, {
  emscripten_webgl_create_context: function() { return 0; },
  emscripten_set_canvas_element_size: function() { return -1; },
});
