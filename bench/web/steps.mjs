#!/usr/bin/env node
// Times each step of the network inside WebAssembly modules: node bench/web/steps.mjs [--runs N] [--group] [--int8] MODULE...
import fs from 'node:fs';
import path from 'node:path';

const files = process.argv.slice(2).filter((a, i, all) => !a.startsWith('--') && all[i - 1] !== '--runs');
const at = process.argv.indexOf('--runs');
const runs = at < 0 ? 40 : Number(process.argv[at + 1]);
const group = process.argv.includes('--group'), int8 = process.argv.includes('--int8');
if (!files.length || !(runs > 0)) {
  console.error('usage: node bench/web/steps.mjs [--runs N] [--group] [--int8] MODULE...   (--group: one line a stage)');
  process.exit(2);
}

for (const file of files) {
  const nothing = new Proxy({}, {get: () => () => 52});
  const env = {now: () => performance.now(), emscripten_notify_memory_growth() {}};
  const module = new WebAssembly.Module(fs.readFileSync(file));
  const e = new WebAssembly.Instance(module, {env, wasi_snapshot_preview1: nothing}).exports;
  (e._initialize ?? e.__wasm_call_ctors)?.();
  const count = e.measure(runs, 1, Number(int8));
  if (count < 0) throw new Error(`${file}: there is not enough memory`);
  const text = (p) => {
    const bytes = new Uint8Array(e.memory.buffer, p, 64);
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  };
  let rows = Array.from({length: count}, (_, i) => ({
    name: text(e.row_name(i)), algorithm: text(e.row_algorithm(i)),
    ms: e.row_value(i, 0), direct: e.row_value(i, 1), executed: e.row_value(i, 2), bytes: e.row_value(i, 3),
  }));
  const steps = rows.filter((r) => !r.name.startsWith('tile'));
  const total = steps.reduce((sum, r) => sum + r.ms, 0);
  if (group) {
    const merged = new Map();
    for (const r of rows) {
      const key = r.name.startsWith('tile') ? r.name : `${r.name.split(/[.]/)[0].replace(/_\d+$/, '')} ${r.name.split('.').slice(1).join('.')}`;
      const m = merged.get(key + r.algorithm) ?? {name: key, algorithm: r.algorithm, ms: 0, direct: 0, executed: 0, bytes: 0};
      for (const k of ['ms', 'direct', 'executed', 'bytes']) m[k] += r[k];
      merged.set(key + r.algorithm, m);
    }
    rows = [...merged.values()];
  }
  console.log(`\n${path.basename(file)}: minima of ${runs} runs; GFLOP/s direct-equivalent and as executed`);
  const line = (...cells) => console.log(cells.map((c, i) => (i < 2 ? String(c).padEnd(i ? 14 : 30) : String(c).padStart(9))).join(' '));
  line('step', 'algorithm', 'ms', 'share', 'direct', 'executed', 'flop/byte');
  for (const r of rows) {
    const giga = 1e-6 / r.ms, share = r.name.startsWith('tile') ? '' : `${((100 * r.ms) / total).toFixed(1)}%`;
    line(r.name, r.algorithm, r.ms.toFixed(4), share, (r.direct * giga).toFixed(1), (r.executed * giga).toFixed(1), (r.executed / r.bytes).toFixed(2));
  }
  const executed = steps.reduce((sum, r) => sum + r.executed, 0);
  line('all steps', '', total.toFixed(2), '', '', ((executed * 1e-6) / total).toFixed(1));
}
