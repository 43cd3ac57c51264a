// Service workers have no import(): the package is imported as a whole, and its module is fetched.
import {answer} from './app.js';

chrome.runtime.onMessage.addListener((message, sender, reply) => {
  answer(chrome.runtime.getURL('weights/small.safetensors')).then(reply, (error) => reply({error: `${error.code}: ${error.message}`}));
  return true;
});
