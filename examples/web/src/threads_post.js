// After Emscripten's own code, and renamed with it by Closure.
Module['stop'] = function() { PThread.terminateAllThreads(); };
