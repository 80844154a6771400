"""modes TOOLS, JSON_SCHEMA and RESPONSES_TOOLS each give the object that was asked for"""
# /// script
# dependencies = ["instructor"]
# ///

import os
from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    """The weather somewhere."""

    city: Literal["Oslo", "Paris"]


client = OpenAI(base_url=os.environ["AXPRESS_URL"] + "/v1", api_key="none", max_retries=0)
question = [{"role": "user", "content": "The weather in Oslo?"}]
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.RESPONSES_TOOLS):
    asking = instructor.from_openai(client, mode=mode, model="default")
    answer = asking.create(response_model=Weather, messages=question, max_retries=0)
    assert isinstance(answer, Weather), (mode, answer)
