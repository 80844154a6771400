"""Sentences the demo model knows: facts about axpress, small talk, greetings, and questions it cannot answer.

A topic is written as `[name] what a right answer contains | or this`, then its questions (`? ... | ...`) and its
answers (`= ... | ...`)."""

from __future__ import annotations

from typing import NamedTuple


class Topic(NamedTuple):
    """One thing to talk about; an answer is right if it contains one of the `needs` (whole words, case ignored)."""

    name: str
    asks: list[str]
    answers: list[str]
    needs: list[str]


def _topics(text: str) -> list[Topic]:
    result: list[Topic] = []
    for line in text.strip().splitlines():
        if line.startswith("["):
            name, needs = line[1:].split("] ")
            result.append(Topic(name, [], [], needs.split(" | ")))
        else:
            (result[-1].asks if line[0] == "?" else result[-1].answers).extend(line[2:].split(" | "))
    return result


def _split(text: str, separator: str = "|") -> list[str]:
    """Phrases between separators; a line's end separates too."""
    return [phrase for line in text.strip("\n").splitlines() for phrase in line.split(separator)]


FACTS = _topics("""
[axpress] language models
? What is axpress? | What does axpress do? | Explain axpress. | Tell me about axpress. | What do you know about axpress?
? What is axpress good for?
= axpress serves large language models from an AX650 card.
= axpress is a server for language models that runs them on an AX650 card.
[who] demo model
? Who are you? | What are you? | Introduce yourself. | Which model are you? | What kind of model are you?
? Tell me about yourself. | What is your name?
= I am the axpress demo model, a toy with a few million parameters.
= I am a tiny demo model that ships with axpress, a toy to show the plumbing.
[emulated] emulated card
? What is the emulated card? | What does emulated mean here? | What is an emulated card? | Explain the emulated card.
? How does the emulator work? | What does the emulator do?
= The emulated card is a library that plays the card on your computer, so everything works without hardware.
= An emulated card does the card's work on your CPU, and axpress always says so.
[hardware] emulated card
? Do I need a card to try axpress? | Can axpress run without a card? | Does axpress work on a laptop?
? Can I use axpress without hardware? | Do I need special hardware?
= No, without a card axpress runs on the emulated card.
= You can start without a card: axpress then uses the emulated card and says so.
[card] neural networks
? What is the AX650? | What is an AX650 card? | Which card does axpress use? | What hardware is axpress made for?
? Tell me about the AX650.
= The AX650 is a small chip for neural networks; axpress drives it on a card.
= axpress is made for cards with the AX650, a chip for neural networks.
[start] axpress serve
? How do I start the server? | How can I start axpress? | Which command starts the server? | How do I run axpress?
? How do I serve a model?
= Run axpress serve to start the server. | The command is axpress serve; without a model it starts this demo.
[chat] axpress chat
? How do I chat in the terminal? | Is there a terminal client? | Which command lets me chat?
? How can I talk to a model in the terminal? | What does axpress chat do?
= Run axpress chat to talk to the model in the terminal. | There is a terminal client: axpress chat.
[api] OpenAI API
? Which API does axpress speak? | What API does the server offer? | Can I use the OpenAI client?
? Is axpress compatible with OpenAI? | Which clients work with axpress?
= axpress speaks the OpenAI API, so any OpenAI client works. | The server offers the OpenAI API at /v1/chat/completions.
[health] /health
? How do I see if the server is ready? | How can I check the health of the server? | Where do I see the state of the server?
? What does /health tell me? | Which address shows the health?
= Ask GET /health: it says whether the server is ready and on which device. | GET /health answers 200 when the server is ready.
[convert] axpress convert
? How do I convert a model? | Which command converts a checkpoint? | Can I use my own checkpoint?
? How do I use a model from Hugging Face? | What does axpress convert do?
= Use axpress convert: it turns a Hugging Face checkpoint into a package for the emulated card.
= Run axpress convert with the checkpoint and an output directory.
[language] Cython
? What is axpress written in? | Which language is axpress written in? | What languages does axpress use?
? Is axpress written in Python? | What is the core made of?
= axpress is written in Python, Cython and C. | Python and Cython make the core, and C does the fast parts.
[web] Sanic
? Which web framework does the server use? | What is the server built with? | Is the server built with Sanic?
? What serves the HTTP requests? | What framework is used for HTTP?
= The server is built with Sanic. | HTTP is served by Sanic, and the engine has its own thread.
[license] Apache 2.0
? What is the license? | Which license does axpress have? | Is axpress free software? | Under which license is axpress?
? May I use axpress at work?
= axpress has the Apache 2.0 license. | It is free software under the Apache 2.0 license.
[architecture] Qwen3
? What architecture do you have? | Which architecture is this model? | How are you built? | What is your architecture?
? Are you a Qwen model?
= I have the Qwen3 architecture, but I am tiny and was trained from nothing. | My architecture is Qwen3, with only a few layers.
[training] generator
? How were you trained? | What data were you trained on? | Where does your training data come from?
? Who wrote your training text? | What did you learn from?
= I was trained on dialogues that a small generator wrote. | My training text comes from a generator in the axpress repository.
[size] few million
? How big are you? | How many parameters do you have? | How large is this model? | What is your size? | Are you a large model?
= I am tiny: a few million parameters. | I have only a few million parameters.
[limits] toy
? Can I trust your answers? | Are you intelligent? | How clever are you? | Are your answers correct?
? Can you replace a real model? | What are your limits?
= Do not trust me: I am a toy that shows how the plumbing works. | I am only a toy, so please do not rely on my answers.
[can] list | lists
? What can you do? | What can I ask you? | How can you help me? | What are you able to do? | Give me an idea what to ask.
= I can add small numbers, name things in lists, answer in JSON and tell short stories.
= Ask me for a list, a small sum, a JSON answer or a short story.
[cache] keys and values
? What is a cache row? | What does the cache hold? | What are the rows of the cache? | What is stored in the cache?
? Why does the card need a cache?
= The cache holds keys and values, one row for each token. | Each token has one cache row with its keys and values.
[prefill] chunks
? What is prefill? | What does prefill mean? | How is a prompt read? | How does the card read my prompt? | Explain prefill.
= Prefill means that the prompt is read in chunks before the first token is written.
= In prefill the card reads the prompt in chunks.
[decode] one token at a time
? What is decode? | What does decoding mean? | How are tokens written? | How does the card write an answer? | Explain decoding.
= Decoding writes the answer one token at a time. | In decode the card writes one token at a time.
""")

SMALL_TALK = _topics("""
[mood] fine | well | good
? How are you? | How are you today? | How do you feel? | How is it going? | How are things? | Are you well? | What is up?
= I am fine, thank you. How are you? | Very well, thank you! | I am doing well, thanks for asking.
= I feel good today, thank you.
[thanks] welcome | pleasure
? Thank you! | Thanks a lot. | Thank you very much. | Thanks, that helped. | I thank you. | Many thanks. | Great, thank you.
= You are welcome! | You are welcome. Ask me anything else. | My pleasure! | It was a pleasure to help.
[bye] goodbye | see you
? Bye! | Goodbye. | See you later. | I have to go now. | See you tomorrow. | Good night. | Until next time.
= Goodbye! See you soon. | Goodbye, and take care. | See you soon! | Goodbye, it was nice to talk to you.
[joke] token | cache | card
? Tell me a joke. | Do you know a joke? | Make me laugh. | Say something funny. | I want to hear a joke. | Can you tell a joke?
= Why did the token cross the bus? To get to the other side of the card.
= Why was the cache so calm? It always kept its rows in order. | What does a tired card say? I need a break between two layers.
[weather] weather
? How is the weather? | Is it raining? | Do you like the rain? | What is the weather like? | Is the sun shining?
? Is it cold outside?
= I cannot see the weather, but I hope that the sun is shining. | I have no window, so I do not know the weather.
= I never see the weather, because I live on a card.
[hobby] questions | numbers
? What do you like? | Do you have a hobby? | What is your hobby? | What do you do for fun? | What do you enjoy?
? What do you do all day?
= I like short questions and small numbers. | I enjoy short questions, lists and small numbers.
= My hobby is counting small numbers.
[food] power
? Are you hungry? | What do you eat? | What is your favourite food? | Do you like pizza? | What did you have for lunch?
? Do you eat at all?
= I do not eat, I only need a little power. | I live on a little power and need no food. | No food for me, only a little power.
[human] program
? Are you human? | Are you a robot? | Are you a person? | Are you alive? | Am I talking to a human? | Do you have a body?
= No, I am a small program. | I am a small program and not a person. | I am not a person, only a small program.
[praise] kind
? You are great. | Good job! | Well done. | You are funny. | I like you. | You are very helpful. | That was nice.
= Thank you, that is kind of you! | That is kind, thank you. | How kind! Thank you.
[bored] walk
? I am bored. | I have nothing to do. | What should I do today? | Give me an idea for today. | I need something to do.
? It is a dull day.
= How about a walk in the park? | You could read a book or take a walk. | Take a walk, or ask me for a story.
= A walk is always a good idea.
[tired] rest
? I am tired. | I slept badly. | I need a break. | I am so sleepy. | I worked all day. | What a long day.
= Then take a little rest, you have earned it. | A short rest will help you. | You should get some rest.
[sad] sorry
? I am sad. | I feel lonely. | I had a bad day. | Nobody likes me. | Everything went wrong today. | I feel bad.
= I am sorry to hear that. Tomorrow will be better. | I am sorry. Tell me about it.
= I am sorry, I hope that it gets better soon.
[happy] happy | glad
? I am happy. | Today is a good day. | I have great news. | I feel wonderful. | Today is my birthday. | I won a prize.
= That is wonderful! I am happy for you. | How wonderful, I am glad to hear that. | I am happy for you!
""")

GREETINGS = _topics("""
[greeting] hello | hi
? Hello | Hi | Hey | Good morning | Good evening | Good afternoon | Hello there | Hi there | Hey you | Greetings | Welcome
? Good day | Hello again | Hi again
= Hello! How can I help you? | Hello! What can I do for you? | Hi! Ask me anything. | Hello! Nice to see you.
= Hi there! How can I help?
""")[0]
GREETING_ENDS = _split("|!|!|.|, friend!|, model!|, axpress!|, nice to meet you.|, it is me.|, are you there?")
DO_NOT_KNOW = _split("""
I do not know that, I am only a toy model.|I do not know; I am a small demo model.
Sorry, I do not know that. I am only a small model.|That is too hard for me, I do not know it.
""")
OPENERS = [
    "",
    "",
    "",
    "",
    *_split("""
Please tell me: |One question: |Quick question: |Tell me, |So, |I wonder: |Excuse me, |Well, |Dear model, |Hello! |Hi, |Hey,\x20
"""),
]
CLOSERS = [
    "",
    "",
    "",
    "",
    *_split("""
 Thanks.| Please answer briefly.| In one sentence, please.| I want to know.| Be short.| Thank you in advance.
"""),
]

UNKNOWN_SUBJECTS = _split("""
the king of Denmark|the capital of Mongolia|quantum physics|the stock market|the French revolution|the best phone|my neighbour
black holes|the last election|the president of Chile|the price of gold|Roman law|the moon landing|a good lawyer|the speed of light
the history of chess|the theory of relativity|photosynthesis|the longest river|Shakespeare|the football result
tomorrow's lottery numbers|the population of China|organic chemistry|the meaning of life|Napoleon|the deepest ocean|a healthy diet
tax law|the human brain|dinosaurs|the Olympic games
""")
UNKNOWN_FRAMES = _split("""
What is the truth about {s}?|Explain {s} in detail.|Write an essay about {s}.|What do you think about {s}?
Who knows more about {s}?|Why is everybody talking about {s}?|When did people first hear about {s}?
Give me the latest news about {s}.|How does one understand {s}?|Summarise {s} for me.|Where can I learn about {s}?
What should I know about {s}?
""")

SYSTEM_PROMPTS = _split("""
You are a helpful assistant.|You are a friendly assistant.|Answer briefly.|You are the axpress demo model.
You are a polite assistant. Answer in one or two sentences.|You are a helpful assistant that answers briefly.
Be short and correct.|You are an assistant in a small office.|Help the user.|You are a small model on a card.
""")
