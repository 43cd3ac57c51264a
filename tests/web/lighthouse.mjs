#!/usr/bin/env node
// Lighthouse's accessibility audit of the page, which must reach 100: node tests/web/lighthouse.mjs [--out FOLDER]
// No part of tools/test.sh: the first run installs 150 MB into build/web/lighthouse. The page must have its modules
// (examples/web/facenet/README.md) and tests/web/make_fixtures.py its weights.
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

import {serve} from '../../examples/web/serve.mjs';
import {FIXTURES, ROOT} from './support.mjs';

const WORK = path.join(ROOT, 'build/web/lighthouse'), at = process.argv.indexOf('--out');
const OUT = at < 0 ? WORK : path.resolve(process.argv[at + 1]);
fs.mkdirSync(OUT, {recursive: true});
if (!fs.existsSync(path.join(WORK, 'node_modules/lighthouse')))
  execFileSync('npm', ['install', '--silent', '--no-audit', '--no-fund', '--no-save', '--prefix', WORK, 'lighthouse@12.2.3'], {stdio: 'inherit'});
const from = createRequire(path.join(WORK, 'x.js'));
const {default: lighthouse} = await import(pathToFileURL(from.resolve('lighthouse')).href);
const {launch} = await import(pathToFileURL(from.resolve('chrome-launcher')).href);

const server = await serve({port: 0, weights: path.join(FIXTURES, 'weights')});
const chrome = await launch({chromePath: '/usr/bin/chromium', chromeFlags: ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic']});
try {
  const {lhr, report} = await lighthouse(`http://localhost:${server.address().port}/`, {port: chrome.port, output: 'html', onlyCategories: ['accessibility'], logLevel: 'error'});
  fs.writeFileSync(path.join(OUT, 'lighthouse.html'), report);
  const score = Math.round(100 * lhr.categories.accessibility.score);
  const failed = Object.values(lhr.audits).filter((audit) => audit.score !== null && audit.score < 1);
  console.log(`accessibility ${score} (Lighthouse ${lhr.lighthouseVersion})`);
  for (const audit of failed) console.log(`${audit.id}: ${audit.title}`);
  process.exitCode = score === 100 ? 0 : 1;
} finally {
  chrome.kill();
  server.closeAllConnections();
  server.close();
}
