"""policy: who may use what. It accepts, signs and publishes; resolvers decide."""
