import {answer} from './app.js';

console.log(JSON.stringify(await answer(process.argv[2])));
process.exit();
