// The entry of projects that are pages: the answer, or what went wrong, is put where the runner finds it.
import {answer} from './app.js';

answer('/weights/small.safetensors')
  .catch((error) => ({error: `${error.code}: ${error.message}`, stack: String(error.cause?.stack ?? error.stack)}))
  .then((given) => { document.body.dataset.answer = JSON.stringify(given); });
