// One more thread of the engine: an instance of the module over the same memory, which computes until it is ended.
// engine.js starts it; it has neither imports nor exports, so that it is a script and a module alike.
globalThis.onmessage = ({data: {module, memory, stack, member}}) => {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  const pause = () => Atomics.wait(cell, 0, 0, 0.05);
  const imports = {};
  for (const {module: from, name, kind} of WebAssembly.Module.imports(module))
    (imports[from] ??= {})[name] = kind === 'memory' ? memory : name === 'pause' ? pause : () => 52;
  const {exports} = new WebAssembly.Instance(module, imports);
  exports.__stack_pointer.value = stack;
  postMessage('ready');
  exports.facenet_serve(member);
};
