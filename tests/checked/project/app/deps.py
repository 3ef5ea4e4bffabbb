"""What endpoints import: the name is from elsewhere."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from safesession.fastapi import async_session_dependency

from .db import get_session, make

SessionDep = Annotated[AsyncSession, Depends(get_session)]  # finds SAFE010
FunctionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
RequestDep = Annotated[AsyncSession, Depends(get_session, scope="request")]
ReadDep = Annotated[AsyncSession, Depends(get_session)]
OwnDep = Annotated[AsyncSession, Depends(async_session_dependency(make))]

get_own_session = async_session_dependency(make, scope="request")
own = object()
