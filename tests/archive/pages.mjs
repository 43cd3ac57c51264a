// Called by pages.py: PLAYWRIGHT PAGES SHOTS. Opens the pages from the disk, scrolls them from end to end, and prints
// {"views": [{view, first_paint_ms, longest_task_ms, cells, errors}]}.
import {createRequire} from 'node:module';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

const [, , modules, pages, shots] = process.argv;
const {chromium} = createRequire(path.join(path.resolve(modules), 'package.json'))('playwright-core');
const browser = await chromium.launch({executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu',
  '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--allow-file-access-from-files']});
const views = [];
for (const [view, size, phone] of [['desktop', {width: 1400, height: 900}, false], ['phone', {width: 390, height: 844}, true]]) {
  for (const [what, hash] of [['people', ''], ['person', '#1']]) {
    const context = await browser.newContext({viewport: size, isMobile: phone, hasTouch: phone});
    const page = await context.newPage();
    const errors = [];
    page.on('pageerror', (e) => errors.push(String(e)));
    page.on('console', (m) => { if (m.type() === 'error') errors.push(m.text()); });
    page.on('request', (r) => { if (!r.url().startsWith('file:')) errors.push(`it asks for ${r.url()}`); });
    await page.addInitScript(() => {
      window.tasks = [];
      new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((e) => e.duration)))
        .observe({type: 'longtask', buffered: true});
    });
    await page.goto(pathToFileURL(path.join(pages, 'index.html')).href + hash);
    await page.waitForSelector('.cell img', {timeout: 60000});
    const paint = await page.evaluate(() => performance.getEntriesByType('paint')
      .find((e) => e.name === 'first-contentful-paint')?.startTime ?? 1e9);
    const scrolled = await page.evaluate(async () => {
      window.tasks.length = 0;
      const end = document.documentElement.scrollHeight - innerHeight, frames = Math.min(600, Math.ceil(end / 200) + 1);
      let most = 0;
      for (let i = 0; i <= frames; i++) {
        scrollTo(0, end * i / frames);
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        most = Math.max(most, document.querySelectorAll('.cell').length);
      }
      await new Promise((done) => setTimeout(done, 300));
      const last = Math.max(...[...document.querySelectorAll('.cell')].map((c) => c.getBoundingClientRect().bottom));
      return {longest: Math.max(0, ...window.tasks), cells: most, overflow: document.documentElement.scrollWidth > innerWidth, last, height: innerHeight};
    });
    if (scrolled.overflow) errors.push('the page is wider than the window');
    if (scrolled.last > scrolled.height + 1) errors.push('the end cannot be reached');
    await page.evaluate(() => scrollTo(0, 0));
    await page.waitForTimeout(300);
    await page.screenshot({path: path.join(shots, `${view}-${what}.png`)});
    views.push({view: `${view} ${what}`, first_paint_ms: Math.round(paint), longest_task_ms: Math.round(scrolled.longest),
      cells: scrolled.cells, errors});
    await context.close();
  }
}
await browser.close();
console.log(JSON.stringify({views}));
