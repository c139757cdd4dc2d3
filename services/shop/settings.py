"""Settings that several of the shop's services have, with the shop's own defaults."""

from pydantic import Field

from servicekit.config import DatabaseSettings, TokenSettings, Url, VerifierSettings


class OrderDbSettings(DatabaseSettings):
    """The address of order-db."""

    database_port: int = Field(5433, ge=1, le=65535, description="PostgreSQL's port.")
    database_name: str = Field("orders_user", description="The database that holds the schemas.")


class ShopTokenSettings(TokenSettings):
    """The claims of the shop's tokens."""

    token_issuer: str = Field("auth-service", description="`iss` of the tokens.")
    token_audience: str = Field("shop", description="`aud` of the tokens.")


class ShopVerifierSettings(ShopTokenSettings, VerifierSettings):
    """What a service needs to verify tokens that auth-service signed."""

    auth_url: Url = Field("http://127.0.0.1:5001", description="auth-service, where the JWKS is.")
